"""The two faces of the kernel that the rest of the program knows: read, and transmit."""

from typing import Protocol

from reconciler.core.model import Key, Mac, Neighbour, Surroundings, Table


class Reader(Protocol):
    """Reads; needs no privilege and changes nothing."""

    def table(self) -> Table:
        """Read links, addresses, next hops and both families' neighbours.

        Raises:
            KernelError: the kernel could not be read whole.
        """

    def surroundings(self) -> Surroundings:
        """Read links, addresses and next hops, without the neighbours.

        Raises:
            KernelError: the kernel could not be read whole.
        """

    def neighbour(self, key: Key) -> Neighbour | None:
        """Read one entry anew; None when there is none (ENOENT).

        Raises:
            KernelError: the kernel did not answer.
        """

    def ucast_solicit(self, ifindex: int) -> int:
        """How many unicast probes the link sends before it gives up (NDTPA_UCAST_PROBES).

        The smaller of both families' values; where it is 0 a probe is a delete.

        Raises:
            KernelError: the kernel did not answer.
        """


class Transmitter(Protocol):
    """Sends one change to the kernel. Only ``kernel.write.Writer`` may hold one.

    Every method raises OSError with the kernel's errno when it refuses.
    """

    def delete(self, key: Key) -> None:
        """RTM_DELNEIGH. There is no compare-and-delete in Linux."""

    def replace(self, key: Key, lladdr: Mac) -> None:
        """Write the lladdr as STALE, without NLM_F_REPLACE.

        So the kernel itself keeps another lladdr that the wire gave meanwhile,
        and says nothing.
        """

    def probe(self, key: Key) -> None:
        """Set NUD_PROBE without lladdr and without NLM_F_REPLACE: the kernel verifies."""

    def resolve(self, key: Key) -> None:
        """NTF_USE with NLM_F_CREATE | NLM_F_EXCL: ask the wire; EEXIST where an entry stands."""

    def reask(self, key: Key) -> None:
        """NTF_USE without NLM_F_CREATE: ask the wire again for an entry that is FAILED.

        Never for another one: it silently demotes PERMANENT. ENOENT where none stands.
        """

    def permitted(self) -> bool:
        """Ask the kernel itself whether this process may write neighbours here.

        Sends a delete that names no address: the kernel checks CAP_NET_ADMIN in
        the namespace's owner first (EPERM) and only then the message (EINVAL).
        """
