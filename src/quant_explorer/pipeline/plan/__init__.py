"""What to try: presets, grids and the sweep file."""
