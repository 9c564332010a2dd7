"""What does it see? Images and labels from where the user has them, split once, as pixels and
views.
"""
