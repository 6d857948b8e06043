"""What the kernel says, and the one class that changes it: alone in importing pyroute2."""
