"""Public fakes, a local EC2 endpoint, and a VPC on one machine, for tests and the demo."""
