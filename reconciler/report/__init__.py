"""What people and machines are told: JSON, tables, the journal, logs."""
