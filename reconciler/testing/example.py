"""The VPC of the demo and the tests: small, and with one of everything that matters."""

from reconciler.core.model import Mac
from reconciler.testing.vpc import Vpc, eni, subnet

HOST = "i-0b000000000000001"

# An instance that was terminated: nobody owns its address or its MAC any more.
GONE_ADDRESS = "10.0.0.50"
GONE_MAC: Mac = b"\x02\x00\x00\x00\x00\x32"

# A pod's address: in no list of addresses, only in the node's delegated prefix.
POD_ADDRESS = "10.0.0.37"


def example() -> Vpc:
    """Describe one subnet with a broker, three clients, a container node and a load balancer.

    ENI 1 is the broker's (instance ``HOST``, 10.0.0.10), 2 to 4 are the clients'
    (10.0.0.11 to .13), 5 is the node's (10.0.0.20, delegated 10.0.0.32/28), 6
    the load balancer's (10.0.0.40). The first four have an IPv6 address, too:
    2001:db8:0:1::10 to ::13.
    """
    home = subnet(1, ("10.0.0.0/24", "2001:db8:0:1::/64"))
    broker, *clients = (
        eni(
            number,
            (f"10.0.0.{number + 9}", f"2001:db8:0:1::{number + 9}"),
            subnet=home,
            instance=HOST if number == 1 else f"i-0c{number:015x}",
            description="broker" if number == 1 else f"client {number - 1}",
        )
        for number in range(1, 5)
    )
    node = eni(
        5,
        ("10.0.0.20",),
        subnet=home,
        prefixes=("10.0.0.32/28",),
        instance="i-0d000000000000005",
        description="container node",
    )
    balancer = eni(
        6,
        ("10.0.0.40",),
        subnet=home,
        interface_type="network_load_balancer",
        description="ELB net/broker/50dc6c495c0c9188",
    )
    return Vpc((home,), (broker, *clients, node, balancer))


__all__ = ["GONE_ADDRESS", "GONE_MAC", "HOST", "POD_ADDRESS", "example"]
