"""What the API and the console share: the process's resources, reading bodies, and sending recordings."""
