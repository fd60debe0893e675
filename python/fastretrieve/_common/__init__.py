"""What every part uses: checked arguments, arrays, orders, atomic files, locks."""
