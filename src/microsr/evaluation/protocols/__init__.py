"""What a super-resolved volume is compared with: a file a protocol."""
