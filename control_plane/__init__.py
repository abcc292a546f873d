"""
The control plane: from what people write to what each proxy is told, and who gets which identity.

Start at `plane.py`, the life of a config update; `docs/life-of-a-config-update.md` walks through it.
Of `meshproxy` it imports only `contract` and pure parts of the inner ring, such as `routing.writable`.
"""
