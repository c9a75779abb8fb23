"""The floor: what FastAPI on uvicorn costs alone. It takes the same requests, answers the same amount, and does
nothing."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


@app.get("/api/developer/calls/{call_id}/transcript")
async def poll(call_id: str) -> dict[str, Any]:
    data = {"call_id": call_id, "transcript_status": "pending", "transcript": None}
    return {"status_code": 200, "message": "Transcript not available yet", "error": None, "data": data}


class FloorOrder(BaseModel):
    customer_number: str
    agent_number: str


@app.post("/api/developer/calls/click2call")
async def create(order: FloorOrder) -> dict[str, Any]:
    data = {"call_id": "call_0000000000000000", "status": "queued"}
    return {"status_code": 200, "message": "Click2Call request created", "error": None, "data": data}
