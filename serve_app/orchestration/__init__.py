"""Who works on jobs: the manager that admits them, and the actor that runs one."""
