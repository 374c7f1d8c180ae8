"""Several processes that train one model: who they are, whether they live, and what they exchange."""
