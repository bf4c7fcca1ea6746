//! Predictions and gold answers to scores with intervals.
