"""A site under mixed traffic while its policy, its store and its workers change."""
