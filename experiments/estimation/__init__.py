"""Head importance: calibration data, estimators, and the comparison of what they are worth."""
