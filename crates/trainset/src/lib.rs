//! Trajectories and scores to importance weights and training examples.
