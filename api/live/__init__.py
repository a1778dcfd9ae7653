"""What goes on between requests: groups of submissions, waits, followers, bells, and a monitor's look."""
