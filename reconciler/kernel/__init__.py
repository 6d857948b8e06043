"""What the kernel says, and the one class that changes it: the only package that imports pyroute2."""
