"""What a trained network has learned that it should not have: probes, each a question with its numbers, and findings.

A probe (`probe.Probe`) asks one thing of any network and any prepared data set; none knows the others. What it cannot
ask it says, with the reason. `findings` chooses what of the answers a person has to know.
"""
