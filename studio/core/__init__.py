"""What every room uses: settings, results, errors, files, paths, text, system."""
