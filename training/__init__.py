"""The torch side of lastresort: training, calibration, export, baselines. Installed by the extra `train`; imports lastresort, never the reverse.

Installed under the name `lastresort_training`.
"""
