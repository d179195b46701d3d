"""The part of the API that Django REST framework serves."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db.models import QuerySet
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, ModelSerializer
from rest_framework.views import APIView
from rest_framework.viewsets import ModelViewSet

from django_ratelimit_tiers.throttling import TierThrottle
from testproject.models import Note


class NoteSerializer(ModelSerializer[Note]):
    """A note as JSON."""

    class Meta:
        model = Note
        fields = ("id", "text", "created_at")


class Search(APIView):
    """Search public names; open to everybody."""

    throttle_classes = [TierThrottle]

    def get(self, request: Request) -> Response:
        sought = request.query_params.get("q", "")[:100].replace("\0", "")
        found = User.objects.filter(username__icontains=sought, is_staff=False) if sought else ()
        return Response({"q": sought, "results": [user.username for user in found[:20]]})


class Export(APIView):
    """Export all notes of the user."""

    permission_classes = [IsAuthenticated]
    throttle_classes = [TierThrottle]

    def get(self, request: Request) -> Response:
        notes = Note.objects.filter(owner_id=request.user.pk)
        return Response({"notes": NoteSerializer(notes, many=True).data})


class NoteViewSet(ModelViewSet[Note]):
    """Read and write one's own notes."""

    permission_classes = [IsAuthenticated]
    throttle_classes = [TierThrottle]
    serializer_class = NoteSerializer

    def get_queryset(self) -> QuerySet[Note]:
        return Note.objects.filter(owner_id=self.request.user.pk)

    def perform_create(self, serializer: BaseSerializer[Note]) -> None:
        serializer.save(owner=self.request.user)
