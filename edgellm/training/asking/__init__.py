"""Models that are asked before and after training: opened, asked all at once, and closed."""
