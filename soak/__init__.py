"""The soak: a real message broker under repair, to prove that repair does no harm.

``python -m soak --seconds 180`` runs it; ``docs/soak.md`` tells what it does. It
needs mosquitto and paho-mqtt, and is no part of the installed program.
"""
