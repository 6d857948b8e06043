"""The pure heart: value types, judging, guarding. No I/O, no clock, no globals."""
