"""Jobs: their states and table, the manager that admits them, the driver that runs one."""
