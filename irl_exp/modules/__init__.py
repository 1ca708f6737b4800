"""Lightning modules: what is trained, and by which loss."""
