"""Other machines as the first one sees them: requests, their KV caches, their layers."""
