"""Three replicas, callers at all of them, everything that can fail, and a judge of what came of it."""
