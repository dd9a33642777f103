"""The command `certlut`."""
