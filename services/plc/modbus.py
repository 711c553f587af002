"""The PLC's side of Modbus TCP: one read of all status points and one write of all commands a scan."""

from __future__ import annotations

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from services.plc.runner import ScanError
from shared.points import COMMAND_BIT_REGISTERS, COMMANDS, STATUS, Values
from shared.registers import decode, encode, registers_of

TIMEOUT_S = 0.5


class ModbusIo:
    """One connection."""

    def __init__(self, host: str, port: int) -> None:
        self._client = AsyncModbusTcpClient(host, port=port, timeout=TIMEOUT_S, retries=0, reconnect_delay=0)
        self._statuses = registers_of(STATUS)

    async def connect(self) -> None:
        """ScanError: nobody listens."""
        if not await self._client.connect():
            raise ScanError(f"no connection to {self._client.comm_params.host}:{self._client.comm_params.port}")

    async def read(self) -> Values:
        """All status points of one moment."""
        try:
            answer = await self._client.read_input_registers(0, count=self._statuses)
        except (ModbusException, OSError) as error:
            raise ScanError(f"read: {error}") from error
        return decode(STATUS, _checked(answer, "read").registers)

    async def write(self, values: Values) -> None:
        """All command points at once."""
        registers = encode(COMMANDS, values, COMMAND_BIT_REGISTERS)
        try:
            _checked(await self._client.write_registers(0, registers), "write")
        except (ModbusException, OSError) as error:
            raise ScanError(f"write: {error}") from error

    async def close(self) -> None:
        """Let the connection go."""
        self._client.close()


def _checked(answer: ModbusPDU, what: str) -> ModbusPDU:
    if answer.isError():
        raise ScanError(f"{what}: {answer}")
    return answer
