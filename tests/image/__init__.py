"""What deploy/test-image runs on the image that it built; `make test` does not collect it."""
