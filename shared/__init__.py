"""What both sides agree on: the values, the errors, the policy, the store. Imports neither api nor worker."""
