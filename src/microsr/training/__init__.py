"""Training: losses, batches, processes that share a step, states, attempts, history."""
