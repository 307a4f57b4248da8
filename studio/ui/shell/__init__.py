"""What all tabs share: server, header, refresh, parts."""
