"""How is the effort spent?"""
