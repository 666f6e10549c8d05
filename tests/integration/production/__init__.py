"""Tests of serve_config.yaml: a package, so that its modules share one server, which ends with the last of them."""
