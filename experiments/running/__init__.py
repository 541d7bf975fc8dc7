"""What every command needs: settings and flags, processes and meshes, output files, journals."""
