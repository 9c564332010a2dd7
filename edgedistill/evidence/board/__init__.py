"""A board that answers over ssh: its address, the login, what is sent and run there, and the words for each fault."""
