"""Forecast what sampling will buy, before it is paid for."""
