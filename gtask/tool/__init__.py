"""The command ``gtask``: look at servers and call them from a shell."""
