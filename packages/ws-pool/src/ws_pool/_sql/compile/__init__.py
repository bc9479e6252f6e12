"""From a statement to SQL text and parameters; pure, no I/O."""
