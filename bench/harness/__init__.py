"""What the benches share: reports, load, an engine that answers at once, servers as processes."""
