"""The resident engine process: its messages, its main loop, and the client that the page talks to. No torch here."""
