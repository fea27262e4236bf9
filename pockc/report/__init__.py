"""What a person looks at: pictures, graphs for viewers, the report of an artifact."""
