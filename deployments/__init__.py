"""How flows come to run: command line, runner, embedded server, schedules."""
