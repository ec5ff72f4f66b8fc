"""The services: each the same five rooms, none importing another. They meet through published events."""
