"""Pictures: data frames and arrays in, figures out. All drawing lives here; nothing here knows a model."""
