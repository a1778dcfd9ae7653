"""What HTTP asks of every request, whatever its route: who sends it, what it holds, how it is refused."""
