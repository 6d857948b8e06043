"""Keep a long-lived EC2 host's ARP and NDP tables true to the VPC.

Data flows one way: ``aws`` and ``kernel`` read the two sides, ``core`` judges
every neighbour and guards the plan, ``repair`` carries it out through the one
class that writes (``kernel.write``), ``report`` tells people what was seen.
"""

__version__ = "0.1.0"
