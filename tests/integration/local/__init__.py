"""Tests of configs/local.yaml: a package, so that its modules share one server, which ends with the last of them."""
